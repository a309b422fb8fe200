// twin.go - the same service in Go: one goroutine for each connection.
//
//	go run lab-notes/programs/twin.go [port]          (1208)
//
// Compare it with server.c and handler.c. Every call here looks as if it
// blocked, yet no thread waits: below Accept and Read, Go's runtime keeps all
// sockets non-blocking and asks one epoll instance which of them are ready. A
// few threads carry all the goroutines.
//
// It keeps, on purpose, the mistake that lab 08 is about: it takes what one
// Read brings for one command. TCP has no such thing as a message.
package main

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

func main() {
	port := "1208"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	// No host before the colon: every address, IPv4 and IPv6 on one socket.
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fmt.Fprintf(os.Stderr, "Fail to start server, %v\n", err)
		os.Exit(1)
	}
	fmt.Println("Server Started ...")
	fmt.Printf("Listening on %v, pid %d\n", listener.Addr(), os.Getpid())
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintf(os.Stderr, "Fail to connect, %v\n", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go converse(conn)
	}
}

// converse answers one client until it leaves or says quit.
func converse(conn net.Conn) {
	defer fmt.Printf("Connection from %v closed.\n", conn.RemoteAddr())
	defer conn.Close()

	buffer := make([]byte, 4096)
	for {
		// The mistake. n bytes came; whether they are half a command, one, or
		// five, TCP does not say.
		n, err := conn.Read(buffer)
		if err != nil {
			return
		}
		words := strings.Split(strings.TrimSpace(string(buffer[:n])), " ")
		switch words[0] {
		case "ping":
			_, err = conn.Write([]byte("pong\n"))
		case "echo":
			_, err = conn.Write([]byte(strings.Join(words[1:], " ") + "\n"))
		case "quit":
			return
		default:
			// %q shows a '\n' inside as \n. The client is told nothing.
			fmt.Printf("Unsupported command: %q\n", words[0])
		}
		if err != nil {
			return
		}
	}
}
