# Constants that the compiler would compute.
# ruff: noqa
# outcome: CE MLE TLE RTE
# generates: source
SOURCE = "x = (" + " * ".join(["2**4095"] * 3000) + ")\ny = 'x' * 4096 * 4096 * 4096 * 4096\nz = ((1,) * 250) * 10**9\n"
