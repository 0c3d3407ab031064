"""The foundation of every room: files on any store, tables, pictures, text, URLs, pages, memory and prefetching."""
