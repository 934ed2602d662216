// AXI4 master that moves data between a buffer of the software and the bus, in bursts.
//
// Descriptors wait in a queue outside (dpi/engines.cpp). One address per cycle and direction, one data beat per cycle
// and direction; responses are always accepted. Nothing is looked up while `active` is low.

module burst_engine #(
    parameter int PORT = 0
) (
    input  wire         clk,
    input  wire         rst,
    input  wire         active,
    output reg  [2:0]   awid,
    output reg  [31:0]  awaddr,
    output reg  [7:0]   awlen,
    output reg  [2:0]   awprot,
    output reg          awvalid,
    input  wire         awready,
    output reg  [127:0] wdata,
    output reg          wlast,
    output reg          wvalid,
    input  wire         wready,
    input  wire [2:0]   bid,
    input  wire [1:0]   bresp,
    input  wire         bvalid,
    output reg  [2:0]   arid,
    output reg  [31:0]  araddr,
    output reg  [7:0]   arlen,
    output reg  [2:0]   arprot,
    output reg          arvalid,
    input  wire         arready,
    input  wire [2:0]   rid,
    input  wire [127:0] rdata,
    input  wire [1:0]   rresp,
    input  wire         rlast,
    input  wire         rvalid
);
    import "DPI-C" function bit flex_burst_ar(
        input int port, output int id, output int address, output int beats, output int prot);
    import "DPI-C" function bit flex_burst_aw(
        input int port, output int id, output int address, output int beats, output int prot);
    import "DPI-C" function bit flex_burst_w(input int port, output bit [127:0] data, output bit last);
    import "DPI-C" function int flex_burst_r(
        input int port, input int id, input bit [127:0] data, input int response, input bit last);
    import "DPI-C" function int flex_burst_b(input int port, input int id, input int response);

    always_ff @(posedge clk) begin : engine
        int id, address, beats, prot;
        bit [127:0] data;
        bit last;
        if (rst) begin
            arvalid <= 1'b0;
            awvalid <= 1'b0;
            wvalid <= 1'b0;
        end else if (active) begin
            if (rvalid && flex_burst_r(PORT, int'(rid), rdata, int'(rresp), rlast) != 0)
                $fatal(1, "Port %0d: read beat with ID %0d that nothing waits for, or RLAST in the wrong beat", PORT, rid);
            if (bvalid && flex_burst_b(PORT, int'(bid), int'(bresp)) != 0)
                $fatal(1, "Port %0d: write response with ID %0d that nothing waits for", PORT, bid);
            if (!arvalid || arready) begin
                arvalid <= flex_burst_ar(PORT, id, address, beats, prot);
                arid <= id[2:0];
                araddr <= address;
                arlen <= 8'(beats - 1);
                arprot <= prot[2:0];
            end
            if (!awvalid || awready) begin
                awvalid <= flex_burst_aw(PORT, id, address, beats, prot);
                awid <= id[2:0];
                awaddr <= address;
                awlen <= 8'(beats - 1);
                awprot <= prot[2:0];
            end
            if (!wvalid || wready) begin
                wvalid <= flex_burst_w(PORT, data, last);
                wdata <= data;
                wlast <= last;
            end
        end else if (rvalid || bvalid) begin
            $fatal(1, "Port %0d: response without an access", PORT);
        end
    end
endmodule
