"""The flags of each command, in the module of its name.

They import neither torch nor Beam, so that help and a wrong flag are there at once. What a command does is imported
when it is called.
"""
