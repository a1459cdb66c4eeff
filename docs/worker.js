// The search of the site runs in a worker, which browsers do not start from disk: a hidden frame takes its place there.
if (location.protocol === "file:") {
  class FrameWorker extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.appendChild(frame)
      const inside = (this.inside = frame.contentWindow)
      this.ready = new Promise((started) => {
        const script = inside.document.createElement("script")
        script.src = url
        script.onload = started
        inside.importScripts = (...urls) => Promise.all(urls.map((each) => this.load(each)))
        inside.postMessage = (data) => {
          const message = new MessageEvent("message", { data })
          this.dispatchEvent(message)
          if (this.onmessage) this.onmessage(message)
        }
        inside.document.head.appendChild(script)
      })
    }

    load(url) {
      return new Promise((loaded, failed) => {
        const script = this.inside.document.createElement("script")
        Object.assign(script, { src: url, onload: loaded, onerror: failed })
        this.inside.document.head.appendChild(script)
      })
    }

    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data })))
    }

    terminate() {
      this.inside.frameElement.remove()
    }
  }
  window.IFrameWorker = FrameWorker // by this name the search knows that it is in a frame
  window.Worker = FrameWorker
}
