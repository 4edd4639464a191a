"""The numbered changes of the studio's tables; `db.open_database` runs them."""
