"""How the formats are made: modules with their frameworks at the top, imported when a format of theirs is made."""
