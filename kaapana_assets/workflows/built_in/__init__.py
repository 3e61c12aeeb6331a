"""The workflows that come with the platform; each file is loaded as a user's is."""
