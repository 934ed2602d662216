// AXI4-Lite master for single register accesses, one at a time, in the order they were posted.

module register_engine #(
    parameter int PORT = 0
) (
    input  wire        clk,
    input  wire        rst,
    input  wire        active,
    output reg  [31:0] awaddr,
    output reg  [2:0]  awprot,
    output reg         awvalid,
    input  wire        awready,
    output reg  [31:0] wdata,
    output reg  [3:0]  wstrb,
    output reg         wvalid,
    input  wire        wready,
    input  wire [1:0]  bresp,
    input  wire        bvalid,
    output reg  [31:0] araddr,
    output reg  [2:0]  arprot,
    output reg         arvalid,
    input  wire        arready,
    input  wire [31:0] rdata,
    input  wire [1:0]  rresp,
    input  wire        rvalid
);
    import "DPI-C" function bit flex_register_next(
        input int port, output bit write, output int address, output int value, output int strobe, output int prot);
    import "DPI-C" function int flex_register_done(input int port, input int response, input int value);

    always_ff @(posedge clk) begin : engine
        bit write, next;
        int address, value, strobe, prot;
        if (rst) begin
            awvalid <= 1'b0;
            wvalid <= 1'b0;
            arvalid <= 1'b0;
        end else if (active) begin
            if (awready) awvalid <= 1'b0;
            if (wready) wvalid <= 1'b0;
            if (arready) arvalid <= 1'b0;
            if (rvalid && flex_register_done(PORT, int'(rresp), int'(rdata)) != 0)
                $fatal(1, "Register port %0d: read response without an access", PORT);
            if (bvalid && flex_register_done(PORT, int'(bresp), 0) != 0)
                $fatal(1, "Register port %0d: write response without an access", PORT);
            next = flex_register_next(PORT, write, address, value, strobe, prot);
            if (next && write) begin
                awvalid <= 1'b1;
                awaddr <= address;
                awprot <= prot[2:0];
                wvalid <= 1'b1;
                wdata <= value;
                wstrb <= strobe[3:0];
            end else if (next) begin
                arvalid <= 1'b1;
                araddr <= address;
                arprot <= prot[2:0];
            end
        end else if (rvalid || bvalid) begin
            $fatal(1, "Register port %0d: response without an access", PORT);
        end
    end
endmodule
