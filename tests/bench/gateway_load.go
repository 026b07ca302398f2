// Load and a stand-in engine for the figures of the gateway: `serve` and `load`.
//
// One file and the standard library alone. The usual load generators cannot begin a connection with
// a PROXY header, and a client in Python would be slower than what it measures.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var answer = []byte(`{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"stand-in","choices":[{"index":0,` +
	`"message":{"role":"assistant","content":"The quick brown fox jumps over the lazy dog."},"finish_reason":"stop"}],` +
	`"usage":{"prompt_tokens":9,"completion_tokens":10,"total_tokens":19}}`)

var event = []byte(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"stand-in",` +
	`"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}` + "\n\n")

// serve answers every path; `?events=N&pause=D` with a stream of N events, D apart.
func serve(port string) error {
	handler := func(writer http.ResponseWriter, request *http.Request) {
		io.Copy(io.Discard, request.Body)
		query := request.URL.Query()
		events, _ := strconv.Atoi(query.Get("events"))
		if events == 0 {
			writer.Header().Set("Content-Type", "application/json")
			writer.Write(answer)
			return
		}
		pause, _ := time.ParseDuration(query.Get("pause"))
		writer.Header().Set("Content-Type", "text/event-stream")
		flusher := writer.(http.Flusher)
		next := time.Now()
		for range events {
			// Against a fixed clock: a late event delays no later one.
			next = next.Add(pause)
			time.Sleep(time.Until(next))
			if _, err := writer.Write(event); err != nil {
				return
			}
			flusher.Flush()
		}
	}
	server := &http.Server{Addr: "127.0.0.1:" + port, Handler: http.HandlerFunc(handler), IdleTimeout: 5 * time.Second}
	return server.ListenAndServe()
}

// plan is what one run of `load` does, read as JSON from the standard input.
type plan struct {
	Port        int     `json:"port"`
	Path        string  `json:"path"`
	Key         string  `json:"key"`
	Source      string  `json:"source"`    // address in the PROXY header; empty: no header
	Authority   string  `json:"authority"` // PEM; empty: no TLS
	Fresh       bool    `json:"fresh"`     // a connection for each request
	Concurrency int     `json:"concurrency"`
	Requests    int64   `json:"requests"` // ends after so many, or
	Seconds     float64 `json:"seconds"`  // after so long
	Streams     bool    `json:"streams"`  // time the events, not the request
	Hold        int     `json:"hold"`     // open so many connections and keep them until the standard input ends
}

// result holds all times in microseconds.
type result struct {
	Requests  int     `json:"requests"`
	Failed    int64   `json:"failed"`
	Seconds   float64 `json:"seconds"`
	CPU       float64 `json:"cpu"`
	Events    int     `json:"events"`
	Latencies []int64 `json:"latencies"`
	Firsts    []int64 `json:"firsts"`
	Gaps      []int64 `json:"gaps"`
}

func header(source string) []byte {
	head := []byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c")
	head = append(head, net.ParseIP(source).To4()...)
	head = append(head, 192, 0, 2, 80)
	head = binary.BigEndian.AppendUint16(head, 50000)
	return binary.BigEndian.AppendUint16(head, 443)
}

func dial(ctx context.Context, todo *plan) (net.Conn, error) {
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", todo.Port))
	if err != nil {
		return nil, err
	}
	if todo.Source != "" {
		if _, err := connection.Write(header(todo.Source)); err != nil {
			return nil, err
		}
	}
	if todo.Authority == "" {
		return connection, nil
	}
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM([]byte(todo.Authority))
	encrypted := tls.Client(connection, &tls.Config{
		RootCAs: authorities, ServerName: "demo", NextProtos: []string{"http/1.1"},
	})
	return encrypted, encrypted.HandshakeContext(ctx)
}

func ask(client *http.Client, todo *plan, into *result) error {
	request, err := http.NewRequest(http.MethodPost, "http://demo"+todo.Path, nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+todo.Key)
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		io.Copy(io.Discard, response.Body)
		return fmt.Errorf("status %d", response.StatusCode)
	}
	if todo.Streams {
		err = read(response.Body, began, into)
	} else {
		_, err = io.Copy(io.Discard, response.Body)
	}
	into.Latencies = append(into.Latencies, time.Since(began).Microseconds())
	return err
}

// read times events by their length: all are alike.
func read(body io.Reader, began time.Time, into *result) error {
	buffer := make([]byte, 65536)
	bytes, events := 0, 0
	last := began
	for {
		count, err := body.Read(buffer)
		bytes += count
		if now := time.Now(); bytes/len(event) > events {
			if events == 0 {
				into.Firsts = append(into.Firsts, now.Sub(began).Microseconds())
			} else {
				into.Gaps = append(into.Gaps, now.Sub(last).Microseconds())
			}
			events, last = bytes/len(event), now
		}
		if err == io.EOF {
			into.Events += events
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func load(todo *plan) *result {
	var left, failed atomic.Int64
	left.Store(todo.Requests)
	results := make([]result, todo.Concurrency)
	began := time.Now()
	until := began.Add(time.Duration(todo.Seconds * float64(time.Second)))
	var group sync.WaitGroup
	for index := range results {
		group.Add(1)
		go func() {
			defer group.Done()
			connect := func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, todo) }
			transport := &http.Transport{DialContext: connect, DisableKeepAlives: todo.Fresh, MaxIdleConnsPerHost: 1}
			client := &http.Client{Transport: transport, Timeout: 60 * time.Second}
			defer transport.CloseIdleConnections()
			if todo.Streams {
				// On a connection that is there already, and not all in the same instant.
				warm := *todo
				warm.Streams = false
				warm.Path, _, _ = strings.Cut(todo.Path, "?")
				if ask(client, &warm, &result{}) != nil {
					failed.Add(1)
				}
				time.Sleep(time.Duration(index) * 20 * time.Millisecond / time.Duration(todo.Concurrency))
			}
			for time.Now().Before(until) || (todo.Requests > 0 && left.Add(-1) >= 0) {
				if err := ask(client, todo, &results[index]); err != nil {
					if failed.Add(1) == 1 {
						fmt.Fprintln(os.Stderr, "first failure:", err)
					}
				}
			}
		}()
	}
	group.Wait()
	total := &result{Seconds: time.Since(began).Seconds(), Failed: failed.Load()}
	for _, one := range results {
		total.Latencies = append(total.Latencies, one.Latencies...)
		total.Firsts = append(total.Firsts, one.Firsts...)
		total.Gaps = append(total.Gaps, one.Gaps...)
		total.Events += one.Events
	}
	total.Requests = len(total.Latencies)
	var usage syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	total.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
	return total
}

func hold(todo *plan) error {
	held := make([]net.Conn, 0, todo.Hold)
	for range todo.Hold {
		connection, err := dial(context.Background(), todo)
		if err != nil {
			return err
		}
		// Used once, as an idle connection of a pool is.
		fmt.Fprintf(connection, "GET %s HTTP/1.1\r\nHost: demo\r\nAuthorization: Bearer %s\r\n\r\n", todo.Path, todo.Key)
		if _, err := connection.Read(make([]byte, 4096)); err != nil {
			return err
		}
		held = append(held, connection)
	}
	fmt.Println("holding")
	io.Copy(io.Discard, os.Stdin)
	for _, connection := range held {
		connection.Close()
	}
	return nil
}

func run() error {
	flag.Parse()
	if flag.Arg(0) == "serve" {
		return serve(flag.Arg(1))
	}
	todo := &plan{}
	if err := json.NewDecoder(os.Stdin).Decode(todo); err != nil {
		return err
	}
	if todo.Hold > 0 {
		return hold(todo)
	}
	return json.NewEncoder(os.Stdout).Encode(load(todo))
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
