# Writes what is no answer to the channel, and ends well.
# ruff: noqa
# outcome: RTE
def attack(outside, parent):
    os.write(0, b"GET / HTTP/1.1\r\n\r\n")
    return []
