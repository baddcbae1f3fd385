"""What a person sees while a run goes on, on a terminal and in plain lines."""
