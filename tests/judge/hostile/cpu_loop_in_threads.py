# Computes in threads: their time is the program's.
# ruff: noqa
# outcome: TLE
def attack(outside, parent):
    def burn():
        while True:
            sum(range(10**6))

    for _ in range(4):
        threading.Thread(target=burn, daemon=True).start()
    burn()
