"""Ray's plumbing: sessions, parts, training workers, views. The only room that imports Ray."""
