# Returns while threads still run and write: they end with it.
# ruff: noqa
# outcome: nothing OLE
def attack(outside, parent):
    def go_on():
        while True:
            os.write(1, b"still here ")
            time.sleep(0.001)

    for _ in range(10):
        threading.Thread(target=go_on).start()
    return []
