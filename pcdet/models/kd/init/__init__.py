"""How a student's weights begin."""
