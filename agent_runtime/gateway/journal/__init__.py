"""What a gateway knows that outlives it: sessions, and answers that were kept."""
