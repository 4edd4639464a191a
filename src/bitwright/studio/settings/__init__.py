"""How the studio looks, who learns, and the record to take along."""
