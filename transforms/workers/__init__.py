"""What the workers of a job do on any cluster: show that they see its files, and report faults."""
