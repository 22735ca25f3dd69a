"""Blockwise runs over volumes larger than memory: plan, ledger, workers."""
