"""What can be known before a start, on one machine or on the nodes of a job: configuration, prompts, hardware."""
