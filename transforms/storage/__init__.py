"""What every room builds on: files on any store, tables, pictures, text, URLs, pages, memory, work ahead."""
