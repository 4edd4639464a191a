"""The numbered changes of the studio's tables; `versions.bring_up_to_date` runs them."""
