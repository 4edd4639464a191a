import numpy as np

STUDENT = np.array([[1.0, 0.0, -1.0], [0.5, 2.0, 0.0]])
TEACHER = np.array([[3.0, 1.0, -2.0], [0.0, 4.0, 1.0]])


def samples():
    one = np.array([[0.0, 0.0]])
    return [
        (
            "labels alone",
            (one, np.array([[2.0, 0.0]]), np.array([1]), 2.0, 0.0),
            "The student is undecided between two classes: log 2.",
        ),
        ("teacher alone", (STUDENT, TEACHER, np.array([0, 1]), 2.0, 1.0), "The labels play no part."),
        (
            "mixed, one label missing",
            (STUDENT, TEACHER, np.array([0, -100]), 4.0, 0.5),
            "The soft part averages two examples, the hard part one.",
        ),
    ]


def hidden():
    rng = np.random.default_rng(13)
    student, teacher = rng.normal(size=(2, 4, 5)) * 2
    far = np.array([[2000.0, -2000.0, 0.0], [-3000.0, -3001.0, -2999.0]])
    near = np.array([[1990.0, 1985.0, 0.0], [-3000.0, -3004.0, -3002.0]])
    return [
        ("no labels", (student, teacher, np.full(4, -100), 3.0, 0.7)),
        ("student equals teacher", (teacher, teacher, np.array([0, 1, 2, 3]), 5.0, 0.9)),
        ("temperature one", (student, teacher, np.array([4, 3, 2, 1]), 1.0, 0.5)),
        ("low temperature", (student, teacher, np.array([4, -100, 0, 1]), 0.5, 0.5)),
        ("high temperature", (student, teacher, np.array([1, 1, -100, -100]), 20.0, 0.3)),
        ("large logits", (near, far, np.array([1, 2]), 2.0, 0.5)),
        ("large logits, teacher alone", (far, near, np.array([0, 1]), 1.0, 1.0)),
        ("one class", (np.array([[3.0]]), np.array([[-1.0]]), np.array([0]), 2.0, 0.5)),
        ("one example", (student[:1], teacher[:1], np.array([2]), 2.0, 0.25)),
    ]


def generate(rng, size):
    batch, classes = int(rng.integers(1, size + 2)), int(rng.integers(2, size + 4))
    student, teacher = rng.normal(size=(2, batch, classes)) * rng.choice([1.0, 4.0])
    labels = np.where(rng.random(batch) < 0.25, -100, rng.integers(0, classes, batch))
    return (student, teacher, labels, float(rng.choice([0.5, 1.0, 2.0, 4.0, 10.0])), round(float(rng.random()), 2))
