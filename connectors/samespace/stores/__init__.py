"""Adapters: one package a store."""
