// server.go - the server of step 8 in Go: go run server.go [PORT] (1208).
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// reply returns the reply to one request; false after quit.
func reply(line []byte) (string, bool) {
	word, text, _ := bytes.Cut(bytes.Trim(line, " \t\n\v\f\r"), []byte(" "))
	switch string(word) {
	case "":
		return "", true
	case "quit":
		return "", false
	case "ping":
		return "pong\n", true
	case "echo":
		return string(text) + "\n", true
	}
	shown := ""
	for i, b := range word {
		if i == 64 {
			shown += "..."
			break
		} else if b > ' ' && b <= '~' {
			shown += string(b)
		} else {
			shown += fmt.Sprintf("\\x%02x", b)
		}
	}
	return "Unsupported command: " + shown + "\n", true
}

func converse(conn *net.TCPConn) {
	defer conn.Close()
	reader := bufio.NewReaderSize(conn, 4096)
	skipping := false
	for open := true; open; {
		line, err := reader.ReadSlice('\n')
		answer := ""
		if err == bufio.ErrBufferFull {
			if !skipping {
				answer = "Line too long, limit 4096 bytes\n"
			}
			skipping = true
		} else {
			if !skipping {
				answer, open = reply(line)
			}
			skipping = false
			open = open && err == nil
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
	// Close with unread input resets the connection: FIN first, and read.
	conn.CloseWrite()
	conn.SetReadDeadline(time.Now().Add(2 * time.Second))
	io.Copy(io.Discard, conn)
}

func main() {
	port := "1208"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
	listener, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Fail to start server,", err)
		os.Exit(1)
	}
	fmt.Println("Server Started ...")
	for {
		if conn, err := listener.Accept(); err == nil {
			go converse(conn.(*net.TCPConn))
		}
	}
}
