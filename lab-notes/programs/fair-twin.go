// fair-twin.go - the service in Go once more, and this time the same work.
//
//	go run lab-notes/programs/fair-twin.go [port]     (1208)
//
// twin.go shows a mistake, and does less than server.c. Who compares the speed
// of two designs must compare the same work. So this one cuts its input into
// lines of at most 4096 bytes, answers all the lines that one Read brought with
// one Write, prints a line when a client comes and one when it leaves, and ends
// a conversation in order.
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

func main() {
	port := "1208"
	if len(os.Args) > 1 {
		port = os.Args[1]
	}
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
		fmt.Printf("Connection from %v opened: [tcp, %v, %v]\n",
			conn.RemoteAddr(), conn.LocalAddr(), conn.RemoteAddr())
		go serve(conn.(*net.TCPConn))
	}
}

func serve(conn *net.TCPConn) {
	if converse(conn) {
		// FIN, then read until the client closes, too: see hang_up() in handler.c.
		conn.CloseWrite()
		conn.SetReadDeadline(time.Now().Add(time.Second))
		io.CopyN(io.Discard, conn, 16<<20)
	}
	conn.Close()
	fmt.Printf("Connection from %v closed.\n", conn.RemoteAddr())
}

// converse answers one client. It returns true after quit, false when the
// client has left.
func converse(conn net.Conn) bool {
	input := bufio.NewReaderSize(conn, 4096)
	output := bufio.NewWriterSize(conn, 4096)
	defer output.Flush()
	skipping := false // inside a line that was too long
	for {
		// Nothing may wait in the output while we wait for input.
		if waiting, _ := input.Peek(input.Buffered()); !bytes.Contains(waiting, []byte("\n")) {
			if output.Flush() != nil {
				return false
			}
		}
		line, err := input.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			if !skipping {
				output.WriteString("Line too long, limit 4096 bytes\n")
			}
			skipping = true
			continue
		}
		if !skipping && answer(output, line) {
			return true
		}
		skipping = false
		if err != nil { // end of file ends the last line
			return false
		}
	}
}

// answer writes the reply to one line. It returns true if that was quit.
func answer(output *bufio.Writer, line []byte) bool {
	word, rest, _ := bytes.Cut(bytes.Trim(line, " \t\r\v\f\n"), []byte(" "))
	switch string(word) {
	case "":
	case "ping":
		output.WriteString("pong\n")
	case "echo":
		output.Write(rest)
		output.WriteString("\n")
	case "quit":
		return true
	default:
		reply := fmt.Sprintf("Unsupported command: %s\n", visible(word))
		fmt.Print(reply)
		output.WriteString(reply)
	}
	return false
}

// visible returns a word that can do no harm on a terminal.
func visible(word []byte) []byte {
	shown := []byte{}
	for i, b := range word {
		switch {
		case i == 64:
			return append(shown, "..."...)
		case b > ' ' && b <= '~':
			shown = append(shown, b)
		default:
			shown = fmt.Appendf(shown, "\\x%02x", b)
		}
	}
	return shown
}
