"""The command ``helmol``: each verb reads its arguments, calls one function, prints the result.

Knows: names of options, tables, exit codes. Does not know: how anything is computed.
"""
