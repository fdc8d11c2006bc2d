"""The forms in which a detector exists, and how one becomes another."""
