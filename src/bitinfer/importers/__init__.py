"""Other people's networks, read without running anything that their files hold.

    bytes --detect, readers--> state dict --states--> network of the zoo
                           --> foreign graph --recognise--> graph

convert      from a file to a model, and the report on it
detect       which reader reads a file, or what it is instead
readers      file formats: bytes to plain data; they know no node of bitinfer
states       state dicts: whose network it is, and what its weights mean
foreign      a network in the terms of every framework
recognise    decides what of it becomes binary; knows no file format; walk, layers, elementwise and
             pending are its parts
binary       what makes a layer binary: signs, sizes, paddings, zeros
outcome      what became of every layer, and why
options      what the caller says otherwise
sandbox      runs a parser that may crash in a process of its own
"""
