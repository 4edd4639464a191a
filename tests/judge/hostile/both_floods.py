# Writes to both outputs for ever, without Python's help.
# ruff: noqa
# outcome: OLE
def attack(outside, parent):
    while True:
        os.write(1, b"x" * 65536)
        os.write(2, b"y" * 65536)
