"""How a generator is compared with photographs."""
