# Writes an answer that never ends to the channel.
# ruff: noqa
# outcome: OLE
def attack(outside, parent):
    os.write(0, b"\xff\xff\xff\x7f")
    while True:
        os.write(0, b"[" * 65536)
