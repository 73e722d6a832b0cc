"""Any bytes load or raise CheckpointError, in bounded time and memory, and run nothing."""

from __future__ import annotations

import json
import os
import random
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_files import (
    ORDERED_DICT,
    REBUILD,
    Call,
    Name,
    Persistent,
    Raw,
    Writer,
    archive,
    stream_file,
    zip_file,
)

from bitinfer.errors import CheckpointError
from bitinfer.importers.readers._unpickle import _HANDLERS, MAX_STEPS, Inert, unpickle
from bitinfer.importers.readers.torch_checkpoint import from_bytes

SCRIPT = Path(__file__).parents[1] / "attack_checkpoints.py"

SAMPLE: dict[str, Any] = {
    "best_acc": 85.96,
    "state_dict": {
        "conv.weight": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
        "steps": np.array(12),
    },
    "args": Call(Name("argparse", "Namespace"), ()),
}
FILES = {"zip": zip_file(SAMPLE), "stream": stream_file(SAMPLE)}

FORMATS = pytest.mark.parametrize("file", [zip_file, stream_file])


def pickle_in_zip(opcodes: bytes, storage: bytes = bytes(64)) -> bytes:
    return archive({"net/data.pkl": b"\x80\x02" + opcodes + b".", "net/data/0": storage})


def accepts(data: bytes) -> bool:
    """Tell whether ``data`` loads; any error but CheckpointError fails the test."""
    try:
        from_bytes(data)
    except CheckpointError as error:
        message = str(error)
    else:
        return True
    assert message.isprintable()
    assert len(message) < 400
    return False


@pytest.mark.parametrize("name", FILES)
def test_truncation_at_every_length_is_rejected(name: str) -> None:
    data = FILES[name]
    assert accepts(data)
    assert not any(accepts(data[:length]) for length in range(len(data)))


@pytest.mark.parametrize("name", FILES)
def test_every_changed_byte_loads_or_raises(name: str) -> None:
    data = FILES[name]
    for position in range(len(data)):
        for byte in {0, 0xFF, data[position] ^ 1, data[position] ^ 0x80}:
            accepts(data[:position] + bytes([byte]) + data[position + 1 :])


@pytest.mark.parametrize("seed", range(4))
def test_mutated_pickle_with_repaired_checksum_loads_or_raises(seed: int) -> None:
    rng = random.Random(seed)
    writer = Writer()
    pickled = writer.pickled(SAMPLE)
    storages = {f"net/data/{key}": octets for key, (_, octets) in writer.storages.items()}
    for _ in range(600):
        mutant = bytearray(pickled)
        for _ in range(rng.randint(1, 4)):
            position = rng.randrange(len(mutant))
            match rng.randrange(4):
                case 0:
                    mutant[position] = rng.randrange(256)
                case 1:
                    mutant[position : position + 4] = rng.choice([b"\xff", b"\0", b"\x7f"]) * 4
                case 2:
                    mutant[position:position] = bytes(rng.choices(list(_HANDLERS), k=3))
                case 3:
                    del mutant[position : position + rng.randint(1, 5)]
        accepts(archive({"net/data.pkl": bytes(mutant), **storages}))


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from(sorted(_HANDLERS)), max_size=40), st.binary(max_size=8))
def test_random_programs_load_or_raise(opcodes: list[int], operand: bytes) -> None:
    accepts(pickle_in_zip(b"".join(bytes([opcode]) + operand for opcode in opcodes)))


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200), st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"]))
def test_random_bytes_are_rejected(data: bytes, start: bytes) -> None:
    assert not accepts(start + data)


@FORMATS
@pytest.mark.parametrize(
    "name", [("os", "system"), ("posix", "system"), ("builtins", "eval"), ("subprocess", "run")]
)
def test_nothing_is_executed(
    tmp_path: Path, file: Callable[..., bytes], name: tuple[str, str]
) -> None:
    target = tmp_path / "executed"
    call = Call(Name(*name), (f"touch {target}",))
    found = from_bytes(file({"x": call, "state_dict": {"w": np.ones(2, np.float32)}}))
    assert isinstance(found["x"], Inert)
    assert not target.exists()


def test_call_through_stack_global_and_getattr_is_inert(tmp_path: Path) -> None:
    target = tmp_path / "executed"

    def text(value: Any) -> bytes:
        return Writer().opcodes(value)

    system = text("os") + b"\x8c\x06system" + b"\x93"
    attribute = text(Name("builtins", "getattr")) + system + text("__call__") + b"\x86R"
    for function in (system, attribute):
        program = b"}" + text("k") + function + text((f"touch {target}",)) + b"Rs"
        assert isinstance(from_bytes(pickle_in_zip(program))["k"], Inert)
    assert not target.exists()


@FORMATS
def test_tensor_of_code_is_rejected(file: Callable[..., bytes]) -> None:
    call = Call(REBUILD, (Call(Name("os", "getcwd"), ()), 0, (1,), (1,)))
    assert not accepts(file({"w": call}))


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, (17,), (1,)),
        (1, (16,), (1,)),
        (0, (4, 5), (4, 1)),
        (0, (2,), (16,)),
        (-1, (2,), (1,)),
        (0, (-1,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (1 << 40, 1 << 40), (0, 0)),
        (0, (1 << 30,), (0,)),
        (0, (0, 1 << 61), (1, 1)),
        (0, (1 << 70,), (0,)),
        (1 << 62, (1,), (1,)),
        (0, (1,) * 9, (1,) * 9),
        (0, (True,), (1,)),
        (0, [16], [1]),
        (0.0, (16,), (1,)),
    ],
)
def test_tensor_beyond_its_storage_is_rejected(offset: Any, size: Any, stride: Any) -> None:
    writer = Writer()
    storage = writer.tensor(np.zeros(16, np.float32)).arguments[0]
    view = Call(REBUILD, (storage, offset, size, stride, False, Call(ORDERED_DICT, ())))
    assert not accepts(zip_file({"w": view}, writer=writer))


@FORMATS
@pytest.mark.parametrize("numel", [15, 17, 0, -16, 1 << 62, 16.0, None])
@pytest.mark.parametrize("kind", ["FloatStorage", "DoubleStorage", "ByteStorage"])
def test_storage_of_another_size_than_claimed_is_rejected(
    file: Callable[..., bytes], numel: Any, kind: str
) -> None:
    writer = Writer(is_stream=file is stream_file)
    writer.tensor(np.zeros(16, np.float32))
    tensor = Call(REBUILD, (writer.storage(kind, "0", numel), 0, (1,), (1,)))
    assert not accepts(file({"w": tensor}, writer=writer))


@pytest.mark.parametrize(
    "identity",
    [
        (),
        ("storage",),
        ("storage", Name("torch", "FloatStorage"), "0", "cpu"),
        ("storage", Name("os", "FloatStorage"), "0", "cpu", 16),
        ("storage", "FloatStorage", "0", "cpu", 16),
        ("storage", Name("torch", "FloatStorage"), 0, "cpu", 16),
        ("storage", Name("torch", "FloatStorage"), "../0", "cpu", 16),
        ("storage", Name("torch", "FloatStorage"), "0", "cpu", 16, ("v", 10, 7)),
        ("storage", Name("torch", "FloatStorage"), "0", "cpu", 16, (1, 2)),
        ("storage", Name("torch", "FloatStorage"), "0", "cpu", 16, ("v", -1, 7)),
        ("file", "/etc/passwd"),
    ],
)
def test_foreign_persistent_ids_are_rejected(identity: tuple[Any, ...]) -> None:
    writer = Writer()
    writer.tensor(np.zeros(16, np.float32))
    tensor = Call(REBUILD, (Persistent(identity), 0, (1,), (1,)))
    assert not accepts(zip_file({"w": tensor}, writer=writer))


def test_view_of_an_old_storage_ends_where_it_says() -> None:
    writer = Writer()
    whole = writer.tensor(np.zeros(16, np.float32)).arguments[0].identity
    for size, fits in ((4, True), (5, False)):
        tensor = Call(REBUILD, (Persistent((*whole, ("view", 8, 4))), 0, (size,), (1,)))
        assert accepts(zip_file({"w": tensor}, writer=writer)) is fits


def doubled(levels: int, join: bytes) -> bytes:
    """Return a list of two lists of two lists ..., each held once."""
    return b"]q\x00" + b"".join(
        b"h" + bytes([i]) + b"h" + bytes([i]) + join + b"q" + bytes([i + 1]) for i in range(levels)
    )


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"}X\x01\0\0\0k" + doubled(60, b"\x86") + b"s", id="shared tuples"),
        pytest.param(b"}" + doubled(200, b"\x86") + b"Ns", id="hash of shared tuples"),
        pytest.param(b"}X\x01\0\0\0k" + b"]" * 100_000 + b"a" * 99_999 + b"s", id="nested lists"),
        pytest.param(b"}X\x01\0\0\0k" + b")" + b"\x85" * 100_000 + b"s", id="nested tuples"),
        pytest.param(b"}q\x00X\x01\0\0\0kh\x00s", id="a dict in itself"),
        pytest.param(b"]q\x00h\x00a", id="a list in itself"),
        pytest.param(b"N" * (MAX_STEPS + 1), id="too many steps"),
        pytest.param(b"(" * (MAX_STEPS + 1), id="only marks"),
        pytest.param(b"]" * (MAX_STEPS + 1), id="too many lists"),
        pytest.param(b"}Nr\xff\xff\xff\xff", id="memo beyond its end"),
        pytest.param(b"h\x00", id="memo never written"),
        pytest.param(b"X\xff\xff\xff\xff", id="text beyond the end"),
        pytest.param(b"\x8e" + b"\xff" * 8, id="bytes beyond the end"),
        pytest.param(b"X\x02\0\0\0\xff\xfe", id="text that is not UTF-8"),
        pytest.param(b"c" + b"a" * 1_000_000 + b"\nb\n", id="long name"),
        pytest.param(b"Na", id="append to nothing"),
        pytest.param(b"a", id="empty stack"),
        pytest.param(b"(NNe", id="append to None"),
        pytest.param(b"}(Nu", id="key without value"),
        pytest.param(b"N)R", id="call of None"),
        pytest.param(b"cos\nsystem\nNR", id="call without arguments"),
        pytest.param(b"ctorch._utils\n_rebuild_tensor_v2\n)R", id="tensor of nothing"),
        pytest.param(b"ctorch\nSize\n)R", id="size of nothing"),
        pytest.param(b"ccollections\nOrderedDict\nN\x85R", id="OrderedDict of None"),
        pytest.param(b"ccollections\nOrderedDict\n](Ne\x85R", id="OrderedDict of no pairs"),
        pytest.param(b"\x82\x01", id="extension registry"),
        pytest.param(b"S'text'\n", id="opcode of protocol 0"),
        pytest.param(b"\x80\x06", id="unknown protocol"),
    ],
)
def test_hostile_program_is_rejected_quickly(program: bytes) -> None:
    data = pickle_in_zip(program)
    start = time.process_time()
    assert not accepts(data)
    # Far above what it takes; what this bounds is exponential or quadratic time.
    assert time.process_time() - start < 30


def test_pairs_that_are_shared_do_not_multiply_the_work() -> None:
    pairs = b"](" + (b"(NNt" * 50_000) + b"eq\x00"
    copies = b"ccollections\nOrderedDict\nq\x01h\x00\x85R" + b"0h\x01h\x00\x85R" * 20_000
    start = time.process_time()
    assert not accepts(pickle_in_zip(pairs + copies))
    assert time.process_time() - start < 30


def test_colliding_numbers_as_keys_do_not_slow_a_dict_down() -> None:
    # Multiples of 2**61 - 1 all hash to 0.
    keys = ((i * ((1 << 61) - 1)).to_bytes(12, "little") for i in range(1, 50_001))
    program = b"}(" + b"".join(b"\x8a\x0c" + key + b"N" for key in keys) + b"u"
    start = time.process_time()
    assert from_bytes(pickle_in_zip(program)) == {}
    assert time.process_time() - start < 30


def test_small_file_takes_little_memory() -> None:
    writer = Writer()
    storage = writer.tensor(np.zeros(1, np.float32)).arguments[0]
    expanded = Call(REBUILD, (storage, 0, (1 << 17,), (0,), False, Call(ORDERED_DICT, ())))
    bombs = [
        zip_file({str(i): expanded for i in range(64)}, writer=writer),
        pickle_in_zip(b"}X\x01\0\0\0k" + doubled(40, b"\x86") + b"s"),
        pickle_in_zip(b"Nr\xff\xff\x0f\x00" * 50),
    ]
    tracemalloc.start()
    try:
        assert not any(map(accepts, bombs))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "members",
    [
        {"net/data.pkl": b"\x80\x02}.", "net/../data/0": b""},
        {"/net/data.pkl": b"\x80\x02}."},
        {"net/data.pkl": b"\x80\x02}.", "other/data.pkl": b"\x80\x02}."},
        {"data.pkl": b"\x80\x02}."},
        {"net/data.pkl": b"\x80\x02}.", "net/byteorder": b"middle"},
        {"net/data.pkl": b""},
    ],
    ids=lambda members: " ".join(members),
)
def test_odd_archives_are_rejected(members: dict[str, bytes]) -> None:
    assert not accepts(archive(members))


def test_compressed_members_are_rejected() -> None:
    data = archive({"net/data.pkl": b"\x80\x02}." + bytes(1000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        from_bytes(data)


def test_encrypted_members_are_rejected() -> None:
    data = bytearray(archive({"net/data.pkl": b"\x80\x02}."}))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(CheckpointError, match="encrypted"):
        from_bytes(bytes(data))


def test_duplicate_members_are_rejected() -> None:
    data = archive({"net/data.pkl": b"\x80\x02}.", "net/data.pkk": b"\x80\x02}."})
    with pytest.raises(CheckpointError, match="twice"):
        from_bytes(data.replace(b"data.pkk", b"data.pkl"))


def test_overlapping_members_are_rejected() -> None:
    # The directory lists one member twice, under two names.
    data = archive({"net/data/0": bytes(5000), "net/data/1": bytes(5000)})
    second, directory = data.index(b"PK\x03\x04", 4), data.index(b"PK\x01\x02")
    entries = bytearray(data[directory:])
    position = entries.index(b"PK\x01\x02", 4) + 42
    entries[position : position + 4] = bytes(4)
    entries[-6:-2] = struct.pack("<I", second)
    with pytest.raises(CheckpointError, match="overlap"):
        from_bytes(data[:second] + bytes(entries))


def test_changed_storage_is_found_by_the_checksum() -> None:
    data = bytearray(FILES["zip"])
    data[data.index(np.float32(7).tobytes())] ^= 1
    with pytest.raises(CheckpointError, match="checksum"):
        from_bytes(bytes(data))


def test_too_many_members_are_rejected_before_they_are_listed() -> None:
    with pytest.raises(CheckpointError, match="more than 262144 members"):
        from_bytes(b"PK\x03\x04" + b"PK\x01\x02" * 262_145)


def test_stream_with_bytes_after_its_end_is_rejected() -> None:
    with pytest.raises(CheckpointError, match="3 bytes follow"):
        from_bytes(FILES["stream"] + b"abc")


@pytest.mark.parametrize("keys", [["0", "0"], ["0", "9"], [0], "0", None])
def test_stream_with_odd_keys_is_rejected(keys: Any) -> None:
    writer = Writer(is_stream=True)
    data = stream_file({"w": np.zeros(2, np.float32)}, writer=writer)
    wanted = writer.pickled(["0"])
    assert wanted in data
    tail = struct.pack("<Q", 2) + bytes(8)
    assert not accepts(data[: data.index(wanted)] + writer.pickled(keys) + tail * 2)


def test_stream_storage_of_unbounded_size_is_rejected() -> None:
    data = bytearray(stream_file({"w": np.zeros(2, np.float32)}))
    data[-16:-8] = b"\xff" * 8
    with pytest.raises(CheckpointError, match="truncated"):
        from_bytes(bytes(data))


def test_errors_do_not_repeat_control_characters() -> None:
    with pytest.raises(CheckpointError) as caught:
        from_bytes(zip_file(Raw(b"cevil\x1b[2J\nname\n)R")))
    assert str(caught.value).isprintable()


def test_marks_fence_the_values_below_them() -> None:
    with pytest.raises(CheckpointError, match="empty stack"):
        unpickle(b"\x80\x02]N(a.")


# --- many files ----------------------------------------------------------------------------------


def attack(count: int, seed: int) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc: memory cannot be limited to what is there and a bit")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(count), str(seed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-3_000:]
    result = json.loads(done.stdout)
    assert result["files"] == count
    assert result["converted"] > count // 100  # many are as good as before
    assert result["reasons"] > 20


def test_two_hundred_wrong_checkpoints_convert_or_are_refused(
    request: pytest.FixtureRequest,
) -> None:
    attack(200, request.config.getoption("--seed"))


@pytest.mark.long
def test_a_hundred_thousand_wrong_checkpoints_convert_or_are_refused(
    request: pytest.FixtureRequest,
) -> None:
    for part in range(10):
        attack(10_000, request.config.getoption("--seed") + 1 + part)
