"""Benchmark reports: reads pytest-benchmark's JSON, writes Markdown and a self-contained page.

    runs = [records.read(path) for path in paths]
    blocks = document.build(runs)
    markdown.render(blocks), page.render(blocks)

The same files give the same bytes.  ``samples`` decides which samples count, here and in bench/;
``against_int8`` says where int8 is the better choice.
"""
