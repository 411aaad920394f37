"""The napari plugin: what a folder of ours looks like in a viewer, and the commands as four steps.

A step is a thin widget (`*_step`) over a state without Qt, which calls what the command calls and
says which command that is. Nothing outside this room imports Qt or napari.
"""
