WORDS = ("turn", "the", "light", "lights", "on", "off", "now", "please")


def samples():
    return [
        (
            "one of each",
            (["turn", "the", "light", "off", "now"], ["please", "turn", "the", "lights", "off"]),
            "Delete please, replace lights, insert now.",
        ),
        ("a word is missing", (["play", "the", "next", "song"], ["play", "next", "song"])),
    ]


def hidden():
    return [
        ("both empty", ([], [])),
        ("nothing heard", (["good", "night"], [])),
        ("nothing said", ([], ["uh", "um", "uh"])),
        ("equal", (["stop", "the", "music"], ["stop", "the", "music"])),
        ("all different", (["one", "two"], ["three", "four"])),
        ("same words, other order", (["on", "off"], ["off", "on"])),
        ("case matters", (["May", "I"], ["may", "I"])),
        ("shifted by one", (["a", "b", "c", "d"], ["b", "c", "d", "e"])),
        ("heard in the middle", (["a", "b", "c", "d"], ["b", "c"])),
        ("a word twice", (["no", "no", "yes"], ["no", "yes"])),
        ("replace, do not move", (["a", "b", "c"], ["x", "y", "z"])),
        ("different lengths, nothing shared", (["a", "b", "c", "d"], ["x"])),
    ]


def generate(rng, size):
    words = WORDS[: rng.choice((2, 4, 8))]
    reference = [rng.choice(words) for _ in range(size)]
    hypothesis = []
    for word in reference:
        luck = rng.random()
        if luck < 0.6:
            hypothesis.append(word)
        elif luck < 0.75:
            hypothesis.append(rng.choice(words))
        elif luck < 0.87:
            hypothesis += [rng.choice(words), word]
    return (reference, hypothesis)


def grow(n):
    return ([WORDS[i % 7] for i in range(n)], [WORDS[i % 5] for i in range(n)])
