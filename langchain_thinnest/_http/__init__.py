"""A body becomes the bytes of one answer: when it may go out, and every way that fails.

This room may not know what the bytes mean, nor LangChain; of the package it imports `errors`
alone.
"""
