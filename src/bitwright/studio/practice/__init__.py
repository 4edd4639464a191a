"""Problems with a judge."""
