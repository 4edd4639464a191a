"""Models: what a folder holds, how its blocks run in bounded memory, what text they see, how good they are."""
