"""What every room stands in: the app and its guard, pages, the engine's process, and jobs that outlive a studio."""
