// Command pause holds the namespaces of a pod and does nothing else until it is told to end.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	for {
		select {
		case <-end:
			return
		case <-dead:
			// In a pod with a shared process namespace it is the parent of what others leave behind.
			for pid := 1; pid > 0; {
				pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			}
		}
	}
}
