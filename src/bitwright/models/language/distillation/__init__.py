"""A language model, the student, learns the next-word distributions of another, its teacher."""
