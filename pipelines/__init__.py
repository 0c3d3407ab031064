"""What a person starts: one thin module a job."""
