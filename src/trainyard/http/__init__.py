"""Requests and responses, in the forms that servers and clients share."""
