"""The bundled demonstration networks and the data they hear and see."""
