"""The cards for other programs: Anki, Moodle and other GIFT readers, Canvas (QTI), any (JSON)."""
