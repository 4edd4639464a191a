"""The studio's database, and what several rooms keep in it."""
