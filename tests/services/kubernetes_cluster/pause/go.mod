module kaapana.example/pause

go 1.21
