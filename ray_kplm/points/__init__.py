"""The points that a detector gives its users: its landmarks, those of them that an edit kept, or points fitted on labels."""
