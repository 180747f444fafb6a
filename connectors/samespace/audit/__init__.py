"""What a collection really holds: whose vectors they are, and what sets them right."""
