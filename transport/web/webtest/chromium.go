// Package webtest runs a real browser in tests.
package webtest

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// patience bounds every wait for a page. It is generous: it costs only tests that
// fail.
const patience = 30 * time.Second

// Chromium starts a headless Chromium with a fresh profile and gives the context
// of its first tab, for chromedp. The browser ends with the test. A missing
// Chromium fails the test: what only a browser can show must not go untested
// unnoticed.
func Chromium(t testing.TB) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(find(t)),
		chromedp.NoSandbox, // tests run as root in containers
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	return tab(t, allocator)
}

// Tab opens another tab in the browser of ctx, with cookies and storage of its
// own. It is closed at the end of the test.
func Tab(t testing.TB, ctx context.Context) context.Context {
	t.Helper()
	return tab(t, ctx, chromedp.WithNewBrowserContext())
}

func tab(t testing.TB, parent context.Context, options ...chromedp.ContextOption) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, options...)
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(ctx), "starting Chromium")
	return ctx
}

func find(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("no Chromium found: this test needs one (`make test` says how to get it)")
	return ""
}

// Do runs steps in the tab.
func Do(t testing.TB, ctx context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	require.NoError(t, chromedp.Do(ctx, steps...))
}

// Eval gives the value of a JavaScript expression, or of the promise that it is.
func Eval[T any](t testing.TB, ctx context.Context, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	require.NoError(t, err, "%s", expression)
	return v
}

// Wait waits until a JavaScript expression is truthy in the page, and gives its
// value. It looks whenever the document changes, and every 50 ms. (chromedp.Poll
// builds its predicate with eval in the page, which a strict
// Content-Security-Policy forbids.)
func Wait[T any](t testing.TB, ctx context.Context, expression string) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	script := fmt.Sprintf(`new Promise((done) => {
		const look = () => {
			const value = (%s);
			if (!value) return;
			observer.disconnect(); clearInterval(timer); done(value);
		};
		const observer = new MutationObserver(look);
		observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
		const timer = setInterval(look, 50);
		look();
	})`, expression)
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](script, chromedp.EvalAwaitPromise))
	if err != nil {
		text, _ := chromedp.Run(context.WithoutCancel(ctx), chromedp.Evaluate[string](`document.body.innerText`))
		require.NoError(t, err, "waiting for %s in the page\n%s", expression, text)
	}
	return v
}

// Complaints collects what the browser complains of in the tab from now on:
// warnings and errors in the console, uncaught exceptions, violations of the
// Content-Security-Policy, failed requests. The func gives what came so far.
func Complaints(t testing.TB, ctx context.Context) func() []string {
	t.Helper()
	var (
		mu    sync.Mutex
		heard []string
		done  sync.WaitGroup
	)
	const marker = "webtest: up to here"
	reached := make(chan struct{}, 1) // one for each call of the func; never closed
	ctx, cancel := context.WithCancel(ctx)
	messages := chromedp.Console(ctx)
	done.Go(func() {
		for m, err := range messages {
			if err != nil {
				return
			}
			if m.Text == marker {
				reached <- struct{}{}
				continue
			}
			switch m.Type {
			case chromedp.ConsoleWarning, chromedp.ConsoleError, chromedp.ConsoleException, "assert":
				mu.Lock()
				heard = append(heard, m.String())
				mu.Unlock()
			}
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return func() []string {
		t.Helper()
		Eval[any](t, ctx, fmt.Sprintf(`console.debug(%q)`, marker)) // it comes after what was said before
		select {
		case <-reached:
		case <-time.After(patience):
			t.Fatal("the browser's console is silent")
		}
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), heard...)
	}
}
