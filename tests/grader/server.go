// server.go PORT - a right server in Go: a goroutine for each client.
package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

const lineLimit = 4096

var (
	lock    sync.Mutex
	clients = map[*net.TCPConn]bool{}
	running sync.WaitGroup
)

func main() {
	listener, err := net.Listen("tcp", ":"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	go stopAtSignal()
	for {
		conn, err := listener.Accept()
		if err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		client := conn.(*net.TCPConn)
		lock.Lock()
		clients[client] = true
		running.Add(1)
		lock.Unlock()
		go serve(client)
	}
}

// stopAtSignal lets each conversation read what has arrived, and then end of file.
func stopAtSignal() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	<-signals
	lock.Lock()
	for client := range clients {
		client.CloseRead()
	}
	lock.Unlock()
	running.Wait()
	os.Exit(0)
}

func serve(client *net.TCPConn) {
	converse(client)
	client.CloseWrite()
	client.SetReadDeadline(time.Now().Add(time.Second))
	io.Copy(io.Discard, client)
	lock.Lock()
	delete(clients, client)
	lock.Unlock()
	client.Close()
	running.Done()
}

func converse(client *net.TCPConn) {
	in, out := bufio.NewReaderSize(client, lineLimit), bufio.NewWriter(client)
	defer out.Flush()
	skipping := false
	for {
		line, err := in.ReadSlice('\n')
		tooLong := err == bufio.ErrBufferFull
		switch {
		case skipping:
		case tooLong:
			fmt.Fprintf(out, "Line too long, limit %d bytes\n", lineLimit)
		case !answer(out, line):
			return
		}
		skipping = tooLong
		if err != nil && !tooLong {
			return
		}
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
	}
}

// answer writes the reply to a line. It returns false for quit.
func answer(out io.Writer, line []byte) bool {
	line = bytes.Trim(line, " \t\r\v\f\n")
	word, text, _ := bytes.Cut(line, []byte(" "))
	switch string(word) {
	case "":
	case "ping":
		fmt.Fprintln(out, "pong")
	case "echo":
		out.Write(append(text[:len(text):len(text)], '\n'))
	case "quit":
		return false
	default:
		fmt.Fprintf(out, "Unsupported command: %s\n", safe(word))
	}
	return true
}

func safe(word []byte) string {
	shown := ""
	for number, letter := range word {
		if number == 64 {
			return shown + "..."
		}
		if letter > ' ' && letter <= '~' {
			shown += string(rune(letter))
		} else {
			shown += fmt.Sprintf("\\x%02x", letter)
		}
	}
	return shown
}
