"""What lessons, problem texts and papers are written with and proved by.

The studio's web process reads `folder`, `kept`, `library` and `problems`, which import no torch; the others compute.
"""
